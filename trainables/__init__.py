"""How one trial trains: components, trainables and the content store; no Ray needed."""
