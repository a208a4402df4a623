# Writes the table of celray_writers.py by R's writers with their defaults.
i <- 1:40
d <- data.frame(
  a = i, b = i %% 7, day = as.Date("2024-01-01") + i, zip = sprintf("%05d", 500 + 97 * i),
  country = c("DE", "NA", "FR", "US")[i %% 4 + 1], value = 1234.5 * i - 7, flag = i %% 3 == 0,
  word = c("Zo\u00eb", "say \"so\"", "it's", "a;b,c|d", "two\nlines", "C:\\dir")[i %% 6 + 1],
  target = c("x", "y")[i %% 2 + 1], stringsAsFactors = FALSE)
d$day[i %% 13 == 0] <- NA
d$value[i %% 10 == 0] <- NA
write.csv(d, "r-csv.csv")
write.csv2(d, "r-csv2.csv", row.names = FALSE)
write.csv(d, "r-latin1.csv", row.names = FALSE, na = "", fileEncoding = "latin1")
write.table(d, "r-table.csv")
write.table(d, "r-table-comma.csv", sep = ",")
write.table(d, "r-table-tab.tsv", sep = "\t", row.names = FALSE, qmethod = "double")
library(data.table)
fwrite(d, "r-fwrite.csv")
fwrite(d, "r-fwrite2.csv", sep = ";", dec = ",", bom = TRUE)
