"""What a trained network looks at: attention maps, pictures of them, and how well they localise."""
