-- The shared tables' versions as of a publication. A publication that did not touch one repeats its version.
SELECT MAX(identities_version) AS identities_version, MAX(changes_version) AS changes_version
FROM publications
WHERE seq <= ?1
