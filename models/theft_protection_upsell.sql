-- Accounts without feature x: the people at companies (dealers and fleets) that have no theft protection.
SELECT
    customers.email,
    accounts.company,
    accounts.plan,
    accounts.seats,
    accounts.features
FROM accounts
JOIN customers ON customers.account_id = accounts.account_id
WHERE NOT array_has(accounts.features, 'theft_protection')
