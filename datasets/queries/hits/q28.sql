SELECT regexp_replace(referer, '^https?://(?:www\.)?([^/]+)/.*$', '\1') AS k, avg(length(referer)) AS l, count(*) AS c, min(referer) AS least
FROM hits
WHERE referer <> ''
GROUP BY regexp_replace(referer, '^https?://(?:www\.)?([^/]+)/.*$', '\1')
HAVING count(*) > 10000
ORDER BY l DESC, k
LIMIT 25
