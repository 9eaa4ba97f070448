SELECT count(*) AS hits FROM hits WHERE advengineid <> 0
