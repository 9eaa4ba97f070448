SELECT watchid, clientip, count(*) AS c, sum(isrefresh) AS refreshed, avg(resolutionwidth) AS width
FROM hits
GROUP BY watchid, clientip
ORDER BY c DESC, watchid, clientip
LIMIT 10
