SELECT regionid, sum(advengineid) AS engines, count(*) AS c, avg(resolutionwidth) AS width, count(DISTINCT userid) AS u
FROM hits
GROUP BY regionid
ORDER BY c DESC, regionid
LIMIT 10
