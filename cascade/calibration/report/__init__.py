"""An outcome for people and programs: `written` as JSON, `figure` as a picture, `machine` says where it was made."""
