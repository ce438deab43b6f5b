"""Pages on which people answer, talk to a model and see how it goes: plain HTML, small ES modules, no other host."""
