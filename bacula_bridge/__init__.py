"""What connects Forebay to Bacula Community 15.

Covers: finding or fetching Bacula's programs (programs, debian), a private installation without
root (lab, daemons), rendering of configuration (render), the Director's console (director), the
catalog (catalog), bootstrap files (bootstrap), a look at the machine (doctor), the stream protocol
with the File Daemon plugin, and the plugin itself (plugin/, in C).
Does not cover: scanning (filesystems), placement and actors (actors), the command line (cluster).
"""
