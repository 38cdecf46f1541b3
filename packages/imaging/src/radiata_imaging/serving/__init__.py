"""A command of an application behind a page on this machine: choose a scan, press a button, look, download.

Reading order: `presets` (what an application registers), `gate` (who may come in), `intake` and `reading` (what may come
in), `work` (a command in a child process, one at a time), `application` (the addresses), `server` (the verb `serve`).

Nothing here imports torch, numpy or a file format into the process that listens: files are read, and commands run, in
children with limits.
"""
