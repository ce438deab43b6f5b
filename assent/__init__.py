"""assent trains language models on what people prefer."""
