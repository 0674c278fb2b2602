-- What was found while the hub was learning: kept, and told only when it is found again.
-- alerts.status may be learning.
ALTER TABLE alert_parts ADD COLUMN learning BOOLEAN;
