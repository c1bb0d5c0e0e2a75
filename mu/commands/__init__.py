"""What each command of `mu` does; nothing here imports torch before it must."""
