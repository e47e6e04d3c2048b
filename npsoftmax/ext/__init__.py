"""What needs another package, one package per module. The core never imports from here."""
