"""What a caller of the bridge imports: the generated contract, its errors, and the `trestle` command."""

__version__ = "0.1.0.dev0"
