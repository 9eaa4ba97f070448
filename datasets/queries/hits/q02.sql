SELECT sum(advengineid) AS engines, count(*) AS hits, avg(resolutionwidth) AS width FROM hits
