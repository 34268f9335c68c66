"""The same checkpoint through other libraries: each in a process of its own, all taking turns."""
