"""The command line of radiata-t1."""
