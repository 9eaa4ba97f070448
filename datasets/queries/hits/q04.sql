SELECT count(DISTINCT userid) AS users FROM hits
