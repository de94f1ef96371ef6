"""What several test files share: real surroundings for the program, no mocks."""
