#!Python
#@ Context context
# For a Fiji that runs in Python mode; its Python needs the package nrrn-fiji.
from nrrn_fiji.fiji import run_command

run_command(context, "Align and Average Scans...")
