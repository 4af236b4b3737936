"""Floor 1: files of the world as plain values: read, checked and written.

Importing this folder, or reading an image, loads no package that only an encoder of masks needs.
"""
