"""The generated contract, `trestle.v1`. Made by `make proto`; never edited."""
