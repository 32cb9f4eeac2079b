"""Drawing: matplotlib figures, which `style.save` writes to files."""
