"""Drawing: pictures as matplotlib figures, which `style.save` writes."""
