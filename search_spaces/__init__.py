"""Where to look: search domains, spaces and the presets shipped with the project."""
