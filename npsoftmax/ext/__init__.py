"""Modules that need another package, one package each. The core never imports from here."""
