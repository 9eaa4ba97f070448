SELECT avg(userid) AS mean FROM hits
