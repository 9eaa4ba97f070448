SELECT userid, extract(minute FROM eventtime) AS m, searchphrase, count(*) AS c
FROM hits
GROUP BY userid, extract(minute FROM eventtime), searchphrase
ORDER BY c DESC, userid, m, searchphrase
LIMIT 10
