"""What every part uses: errors, files, locks, records, text."""
