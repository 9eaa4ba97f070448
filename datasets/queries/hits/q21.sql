SELECT searchphrase, min(url) AS address, count(*) AS c
FROM hits
WHERE url LIKE '%google%' AND searchphrase <> ''
GROUP BY searchphrase
ORDER BY c DESC, searchphrase
LIMIT 10
