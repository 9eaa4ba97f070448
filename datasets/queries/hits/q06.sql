SELECT min(eventdate) AS first, max(eventdate) AS last FROM hits
