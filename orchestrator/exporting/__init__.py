"""What a student needs to leave the project: graph, tokenizer, proof, measurements, card."""
