SELECT userid, searchphrase, count(*) AS c
FROM hits
GROUP BY userid, searchphrase
ORDER BY userid, searchphrase
LIMIT 10
