"""The commands of ``npsoftmax`` and of the files in ``scripts/``.

Their flags, files and exit codes are public. What the modules define may change without notice.
"""
