SELECT searchphrase, min(url) AS address, min(title) AS first_title, count(*) AS c, count(DISTINCT userid) AS u
FROM hits
WHERE title LIKE '%Google%' AND url NOT LIKE '%.google.%' AND searchphrase <> ''
GROUP BY searchphrase
ORDER BY c DESC, searchphrase
LIMIT 10
