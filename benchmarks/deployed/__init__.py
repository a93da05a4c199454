"""What is put into the packages of the contestants that are functions too."""
