"""Text classifiers, teachers' and students' alike: one file each, in the catalog as ``models``."""
