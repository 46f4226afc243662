-- name: add
insert into audit_entry (tenant_id, id, created_at, subject, action, target, reason, address, request_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: entries
select * from audit_entry
where ($1 = '' or action = $1) and ($2 = '' or subject = $2)
  and ($3::timestamptz is null or created_at >= $3) and ($4::timestamptz is null or created_at < $4)
  and ($5::timestamptz is null or (created_at, id) < ($5, $6))
order by created_at desc, id desc
limit $7;
