SELECT clientip, clientip - 1 AS ip1, clientip - 2 AS ip2, clientip - 3 AS ip3, count(*) AS c
FROM hits
GROUP BY clientip, clientip - 1, clientip - 2, clientip - 3
ORDER BY c DESC, clientip
LIMIT 10
