"""Everything that would make tonight's run, an alert or a restore fail, found by day and without side effects."""
