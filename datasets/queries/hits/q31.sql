SELECT watchid, clientip, count(*) AS c, sum(isrefresh) AS refreshed, avg(resolutionwidth) AS width
FROM hits
WHERE searchphrase <> ''
GROUP BY watchid, clientip
ORDER BY c DESC, watchid, clientip
LIMIT 10
