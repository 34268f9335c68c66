"""An outcome for people and programs: `written` as JSON, `figure` as a picture."""
