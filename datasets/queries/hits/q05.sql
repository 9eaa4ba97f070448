SELECT count(DISTINCT searchphrase) AS phrases FROM hits
