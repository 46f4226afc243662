-- name: add
insert into api_key (tenant_id, id, display_name, roles, secret_hash, creator, created_at, expires_at, request_id,
  scopes, service_account)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
on conflict do nothing
returning id;

-- name: find
select * from api_key where id = $1;

-- name: revoke
update api_key set revoked_at = coalesce(revoked_at, $2) where id = $1 returning *;

-- name: end
update api_key set expires_at = least(expires_at, $2) where id = $1 returning *;

-- name: used
update api_key set last_used_at = $2 where id = $1;

-- name: keys
select * from api_key
where ($1::timestamptz is null or (revoked_at is null and (expires_at is null or expires_at > $1)))
  and ($2::timestamptz is null or (created_at, id) < ($2, $3))
order by created_at desc, id desc
limit $4;
