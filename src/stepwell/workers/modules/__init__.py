"""The modules that a Worker imports by Cloudflare's names. Only a Worker's own processes have this folder on their path."""
