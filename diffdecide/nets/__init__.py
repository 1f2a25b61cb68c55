"""Networks, one per file: import the module that you need (`diffdecide.nets.mlp`, `.dit`, ...)."""
