SELECT userid, searchphrase, count(*) AS c
FROM hits
GROUP BY userid, searchphrase
ORDER BY c DESC, userid, searchphrase
LIMIT 10
