"""The two YAML files of a run, parsed once at the door: config.yaml says where, recipe.yaml says what."""
