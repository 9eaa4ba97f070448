SELECT advengineid, count(*) AS c
FROM hits
WHERE advengineid <> 0
GROUP BY advengineid
ORDER BY c DESC, advengineid
