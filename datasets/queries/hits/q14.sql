SELECT searchengineid, searchphrase, count(*) AS c
FROM hits
WHERE searchphrase <> ''
GROUP BY searchengineid, searchphrase
ORDER BY c DESC, searchengineid, searchphrase
LIMIT 10
